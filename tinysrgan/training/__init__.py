"""What train.py needs beside the steps: options, the command line, the nets together, the log, interrupts."""
