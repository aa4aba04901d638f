"""Side-by-side measurements that anyone can run: `make bench`. Times are noise, so each benchmark reports ratios."""
