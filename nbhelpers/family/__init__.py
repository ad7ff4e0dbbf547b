"""The other systems that the paper names, each one short file on the same recorder."""
