"""Where records come from and go to: storage by URL, readers and writers."""
