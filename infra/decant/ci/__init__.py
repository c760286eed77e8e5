"""What CI needs beside Pulumi: the run that this is, its host name, and the forge that runs it."""
