"""What `import raylora` offers: functions that start, resume and open runs, and the run that they return."""
