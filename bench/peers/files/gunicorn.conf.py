"""gunicorn's own advice: two workers a core and one more, of its default kind."""

import multiprocessing

bind = "unix:/run/app/gunicorn.sock"
workers = 2 * multiprocessing.cpu_count() + 1
