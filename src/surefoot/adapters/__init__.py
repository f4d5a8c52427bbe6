"""What can be done with a finished adapter: inspect, convert, merge, extract, resize."""
