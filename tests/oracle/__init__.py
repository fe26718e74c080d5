"""Independent truth for the engines: the reference package and a float64 model written by another
hand.
"""
