"""Measures a model through the door every engine has; knows no flags and no terminal."""
