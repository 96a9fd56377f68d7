"""The runtime: HTTP in, a stitch chosen for every request, predictions out."""
