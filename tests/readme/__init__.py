"""Where every number of the READMEs comes from: a module for each page, read by ``check_readme.py``."""
