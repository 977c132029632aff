"""What can be done over a CDP endpoint, wherever the browser is."""
