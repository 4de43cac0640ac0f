"""Where clips come from: folders, names, lists, shots."""
