"""Answers and completions by hand, a pair a line, parted by ` ~ `: those that mean the same, and those that do not."""

EQUAL = r"""
2 ~ 2
2 ~ The answer is 2.
2 ~ \boxed{2}
2 ~ So we have $x = 2$.
2 ~ 2.0
2 ~ We get $\frac{4}{2}$
2 ~ The answer is: 2
2 ~ First \boxed{3}, or rather \boxed{2}.
-3 ~ The answer is $-3$.
-3 ~ - 3
-3 ~ \boxed{-3.00}
0 ~ The answer is 0.
0 ~ $-0$
\frac{1}{2} ~ 0.5
\frac{1}{2} ~ 1/2
\frac{1}{2} ~ \boxed{\dfrac{1}{2}}
\frac{1}{2} ~ $\tfrac12$
\frac{1}{2} ~ \frac{2}{4}
\frac{1}{2} ~ The final answer is $\frac{3}{6}$. I hope it is correct.
\frac{1}{2} ~ 50/100
-\frac{3}{4} ~ $\frac{-3}{4}$
-\frac{3}{4} ~ \boxed{-0.75}
-\frac{3}{4} ~ -3/4
\frac{7}{3} ~ \boxed{\frac{14}{6}}
0.125 ~ \frac{1}{8}
\frac{\sqrt{2}}{2} ~ \frac{1}{\sqrt{2}}
\frac{\sqrt{3}}{3} ~ \boxed{\dfrac{1}{\sqrt{3}}}
\sqrt{8} ~ 2\sqrt{2}
\sqrt{12} ~ The answer is $2 \sqrt{3}$.
\sqrt{2} ~ $2^{1/2}$
\sqrt[3]{8} ~ 2
3\sqrt{5} ~ \sqrt{45}
\pi ~ \boxed{\pi}
2\pi ~ $\pi \cdot 2$
\frac{\pi}{3} ~ \frac{1}{3}\pi
\frac{\pi}{3} ~ $\pi/3$
1,\!000 ~ 1000
1,\!000 ~ The answer is 1,000.
12,345 ~ \boxed{12345}
90{,}900 ~ 90900
1{,}000{,}000 ~ The answer is 1000000
10\% ~ 10
10\% ~ The answer is $10\%$.
45^\circ ~ 45
45^\circ ~ \boxed{45^{\circ}}
\$5 ~ 5
\$18.90 ~ The answer is \$18.90
5 ~ 5 apples
5 ~ The answer is 5 apples.
5\text{ cm} ~ 5
5\text{ cm} ~ \boxed{5 \text{ centimetres}}
24\text{ cm}^2 ~ 24
\text{Tuesday} ~ Tuesday
\text{Tuesday} ~ The answer is tuesday.
\text{Evelyn} ~ \boxed{\text{Evelyn}}
\text{(C)} ~ C
\text{(C)} ~ The answer is (C).
\text{even} ~ \boxed{\mbox{even}}
x+1 ~ 1+x
x+1 ~ \boxed{x + 1}
2x+3 ~ $y = 2x+3$
y=2x+3 ~ 2x + 3
(x+1)^2 ~ x^2+2x+1
(x-1)(x+1) ~ $x^2-1$
x^2-4x+4 ~ (x-2)^2
2(x+y) ~ 2x+2y
\frac{x}{2} ~ 0.5x
\frac{x+1}{2} ~ \frac{1}{2}x+\frac{1}{2}
x^{-1} ~ \frac{1}{x}
e^{2x} ~ (e^x)^2
\sin x ~ $\sin(x)$
\log_2 8 ~ 3
(1,2) ~ (1, 2)
(1,2) ~ \boxed{\left(1,2\right)}
(3,-4) ~ $(3, -4)$
(\frac{1}{2},3) ~ (0.5, 3)
(-1,\frac{2}{4}) ~ \left(-1,\frac{1}{2}\right)
[2,5) ~ $[2, 5)$
[2,5) ~ \boxed{\left[2,5\right)}
(-\infty,3) ~ (-\infty, 3)
(-\infty,1)\cup(2,\infty) ~ (-\infty,1) \cup (2,\infty)
\{1,2,3\} ~ \{3, 2, 1\}
1,2 ~ 1, 2
1,2 ~ \boxed{2,1}
-2, 3 ~ $3, -2$
\begin{pmatrix} 1 \\ 2 \end{pmatrix} ~ \boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}
\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} ~ $\begin{pmatrix}1&0\\0&1\end{pmatrix}$
\begin{pmatrix} \frac{1}{2} \\ 2 \end{pmatrix} ~ \begin{pmatrix} 0.5 \\ 2 \end{pmatrix}
3+4i ~ 4i+3
2i ~ \boxed{2i}
1-2i ~ $-2i+1$
10! ~ 3628800
\binom{5}{2} ~ 10
2^{10} ~ 1024
10^3 ~ 1000
3 \times 10^4 ~ 30000
x=5 ~ 5
x=5 ~ \boxed{x = 5}
x \in [1,2] ~ [1,2]
f(x)=x+2 ~ x+2
50\% ~ 0.5
0.25 ~ 25\%
\frac{1}{4} ~ 25\%
2\frac{1}{2} ~ 2 1/2
-1\frac{3}{4} ~ -1 3/4 cups
2\frac12 ~ 2½
x^2 ~ x²
\{x : x > 2\} ~ x > 2
\{x \in \mathbb{R} \mid x > 2\} ~ (2,\infty)
x \geq 3 ~ [3, \infty)
1 < x < 2 ~ (1, 2)
[0, 1] \cup [2, 3] ~ [2,3]\cup[0,1]
\$1,250 ~ The total is \$1250.
1,234,567 ~ 1\,234\,567
6\pi\text{ cm}^2 ~ 6\pi
60\text{ km/h} ~ \boxed{60 \text{ kilometers per hour}}
6.02 \times 10^{23} ~ 6.02e23
3 \cdot 10^{-2} ~ 0.03
10 ~ The answer is **10**.
10 ~ ten? no: **10**
1011_2 ~ 1011_{2}
A2_{16} ~ a2_{16}
3.14 ~ \boxed{\approx 3.14}
3.14 ~ approximately 3.14
5,7 ~ The solutions are $5$ and $7$.
7 ~ With $a=5$ and $b=7$
7 ~ \boxed{x = \boxed{7}}
42 ~ Thus she paid $42.
5 ~ €5
\text{6:00 p.m.} ~ 6:00 p.m.
11:30 ~ 11:30 a.m.
\text{(B)} ~ The answer is (B) 12.
(2, 3) ~ \boxed{x = 2, y = 3}
\pm 3 ~ 3, -3
x = 2 \text{ or } x = 3 ~ 2, 3
\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} ~ \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
"""

UNEQUAL = r"""
2 ~ 3
2 ~ -2
2 ~ 20
2 ~ 0.2
2 ~ \boxed{}
2 ~ I do not know.
2 ~ The answer is 2, no: the answer is 3.
2 ~ First \boxed{2}, or rather \boxed{3}.
2 ~ nan
2 ~ \infty
0 ~ 1
0 ~ none
-3 ~ 3
-3 ~ The answer is $3$.
\frac{1}{2} ~ 2
\frac{1}{2} ~ \frac{1}{3}
\frac{1}{2} ~ \frac{2}{1}
\frac{1}{2} ~ 0.51
\frac{1}{2} ~ -\frac{1}{2}
\frac{1}{3} ~ 0.3
\frac{1}{3} ~ 0.33
\frac{7}{3} ~ \frac{3}{7}
0.125 ~ 0.0125
\sqrt{2} ~ 2
\sqrt{2} ~ \sqrt{3}
\sqrt{2} ~ -\sqrt{2}
\sqrt{2} ~ 1.4
2\sqrt{2} ~ \sqrt{2}
3\sqrt{5} ~ 5\sqrt{3}
\sqrt[3]{8} ~ 3
\pi ~ 3
\pi ~ 3.14
\pi ~ 2\pi
\frac{\pi}{3} ~ \frac{\pi}{6}
\frac{\pi}{3} ~ 60
1,\!000 ~ 1
1,\!000 ~ 100
12,345 ~ 12
10\% ~ 100
45^\circ ~ 54
\$5 ~ \$6
5\text{ cm} ~ 6\text{ cm}
5\text{ cm} ~ cm
\text{Tuesday} ~ Monday
\text{Tuesday} ~ \text{Thursday}
\text{Tuesday} ~ 2
\text{Evelyn} ~ \text{Nevely}
\text{(C)} ~ B
\text{(C)} ~ The answer is (D).
\text{even} ~ odd
\text{even} ~ \boxed{}
x ~ y
x+1 ~ x-1
x+1 ~ x
x+1 ~ y+1
2x+3 ~ 3x+2
2x+3 ~ 2x-3
2x+3 ~ 5x
(x+1)^2 ~ x^2+1
(x+1)^2 ~ (x-1)^2
x^2 ~ 2x
x^2-4x+4 ~ x^2-4
2(x+y) ~ 2x+y
\frac{x}{2} ~ \frac{2}{x}
x^{-1} ~ -x
e^{2x} ~ 2e^x
\sin x ~ \cos x
\log_2 8 ~ 4
(1,2) ~ (2,1)
(1,2) ~ (1,3)
(1,2) ~ (1,2,3)
(1,2) ~ 12
(3,-4) ~ (3,4)
(\frac{1}{2},3) ~ (2,3)
[2,5) ~ [2,5]
[2,5) ~ (2,5)
[2,5) ~ [2,6)
(-\infty,3) ~ (3,\infty)
(-\infty,3) ~ (-\infty,3]
(-\infty,1)\cup(2,\infty) ~ (-\infty,1)
\{1,2,3\} ~ \{1,2\}
\{1,2,3\} ~ \{1,2,4\}
1,2 ~ 1,3
1,2 ~ 1
1,2 ~ 1,2,3
-2, 3 ~ 2, 3
\begin{pmatrix} 1 \\ 2 \end{pmatrix} ~ \begin{pmatrix} 2 \\ 1 \end{pmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} ~ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}
\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix} ~ \begin{pmatrix} 0 & 1 \\ 1 & 0 \end{pmatrix}
3+4i ~ 3-4i
3+4i ~ 7i
2i ~ 2
10! ~ 10
\binom{5}{2} ~ \binom{5}{1}
2^{10} ~ 20
10^3 ~ 30
3 \times 10^4 ~ 3 \times 10^5
x=5 ~ x=6
x \in [1,2] ~ x \in [1,3]
f(x)=x+2 ~ f(x)=x-2
50\% ~ 5
50\% ~ 0.05
0.5 ~ 5\%
2\frac12 ~ 2 1/3
2\frac{1}{2} ~ 21/2
(1,2) ~ \{1,2\}
\{1,2\} ~ \{1,2,3\}
[0,1) ~ (0,1]
x \ge 3 ~ x > 3
1011_2 ~ 1011_3
6.02 \times 10^{23} ~ 6.02e22
\{x : x > 2\} ~ x > 3
10 ~ **11**
5,7 ~ The answers are 5 and 8.
(2,3) ~ \boxed{x = 3, y = 2}
5 ~ \boxed{5, 6}
5 ~ $5$ and $7$
5 ~ She has 4 and then 5 of them.
\text{6:00 p.m.} ~ 6:00 a.m.
\text{(B)} ~ The answer is (C) 12.
\begin{pmatrix} 1 \\ 2 \end{pmatrix} ~ \begin{pmatrix} 1 & 2 \end{pmatrix}
0.333 ~ \frac13
5 ~ 5i
y = -2x + 5 ~ y = 2x + 5
"""


def pairs(text: str) -> list[tuple[str, str]]:
    """`(answer, completion)` of each line."""
    parted = [line.partition(" ~ ") for line in text.strip().splitlines()]
    return [(answer, completion) for answer, _, completion in parted]
