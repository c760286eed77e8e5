"""The module that gunicorn (`gunicorn wsgi:app`) and Flask (`flask --app wsgi run`) load."""

from hello import create_app

app = create_app()
