"""The paper's figures of sections 4 and 6: a command for each."""
