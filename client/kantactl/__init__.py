"""`kantactl`: a kantad server from the command line."""
