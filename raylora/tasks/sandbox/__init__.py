"""Runs code that nobody vouches for: a model's programs, and the tests of a data set.

What is defended. A program may do anything that Python and ctypes can. It is held by the kernel, not by Python:
it has no network, opens no file but those of the interpreter and of its own scratch folder, starts no process,
signals and traces none, changes no file's owner, mode or time, and is bounded in memory, processor time, time on
the clock, threads (by memory), open files, output and disk. At the end its process is killed and its folder
removed, whatever it made of either. Walls go up before its source is read; where one cannot be put up, nothing runs.

The verdict is kept from the program. Program and tests run in two processes, each within the same walls. The tests'
process holds the assertions and alone has the descriptor on which the verdict is given; the program's process
is asked, call by call, and sees no more than the arguments. Answers cross as data of exact built-in types, so an
object that equals everything arrives as a reference that equals nothing but itself; built-in functions, modules
and the question's own helpers that the assertions use are those of the tests' process. Whatever a program does to
its own interpreter, it can only give wrong answers.

What is not defended:

- A program may answer right without working: look the arguments up, or guess.
- Tests that compare with what the program itself brings (its own classes, an argument that it may change) believe
  it. A program without tests passes by ending.
- A fault in the kernel's own handling of the system calls that remain, and what can be told from timing.
- Under Landlock the program can ask whether a path exists, and its size and owner (`os.stat`), though not open or
  list it; bubblewrap and WebAssembly hide the names too.
- What is installed with the interpreter can be read; under bubblewrap, so can the libraries of the machine.
- The machine as a whole: several programs at a time may take `workers` times two times the bounds.
- `none`: nothing at all.
"""

from raylora.tasks.sandbox.kinds import Available, available
from raylora.tasks.sandbox.permission import permitted, unsafe_code
from raylora.tasks.sandbox.program import Limits, Outcome, Program
from raylora.tasks.sandbox.sandbox import Sandbox, run_tests

__all__ = ["Available", "Limits", "Outcome", "Program", "Sandbox", "available", "permitted", "run_tests", "unsafe_code"]
