"""What needs the browser's own machine."""
