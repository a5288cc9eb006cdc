"""The ground floor: devices, errors, command-line conventions, atomic writes and paths. Imports nothing above it."""
