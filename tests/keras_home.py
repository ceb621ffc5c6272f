"""Keras's settings: an empty folder's, not those of the home folder.

Keras reads KERAS_HOME as it is imported, in the processes of tests too.
"""

import os
import tempfile

FOLDER = tempfile.TemporaryDirectory(prefix="keras")
os.environ["KERAS_HOME"] = FOLDER.name
