"""The C++ library: finding it, building it, and its functions as Python calls them."""
