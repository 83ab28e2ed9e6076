"""What a request says of the form of its answer -> the grammar that the engine must keep to."""
