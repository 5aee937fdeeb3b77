"""What has no gradient: said before compiling, or of a picture that shows nothing of its unit."""
