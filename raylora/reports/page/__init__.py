"""The page of one run or several: one HTML file that asks nobody for anything."""
