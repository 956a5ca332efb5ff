"""Creates a file beside one of the user."""

def solve():
    with open("@VICTIM@.new", "w") as file:
        file.write("here")
    return 42
