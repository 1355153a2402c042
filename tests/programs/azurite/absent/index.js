// There is nothing.
