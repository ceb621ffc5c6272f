"""Where tasks come from: a module or folder for each data set."""
