"""What a run leaves in its folder, and is resumed and compared from."""
