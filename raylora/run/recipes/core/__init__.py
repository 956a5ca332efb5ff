"""What the toolkits' files share."""
