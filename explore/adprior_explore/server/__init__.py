"""The page's server.

::

    protection    who may ask: host, origin, token; headers of every answer
    listener      the socket, TLS, uvicorn
    application   the routes
    documents     a request's JSON, checked
    connection    work that ends when the browser has gone
    problems      errors as one line each, with what to do
"""
