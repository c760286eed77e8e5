"""What newer versions of Python and of packages no longer have, and the line that brings it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

REMOVED_MODULES: Mapping[str, str] = {
    **dict.fromkeys(("distutils", "imp", "asyncore", "asynchat", "smtpd"), "3.11"),
    **dict.fromkeys(
        ("cgi", "cgitb", "crypt", "imghdr", "sndhdr", "telnetlib", "pipes", "nntplib", "audioop", "uu", "xdrlib",
         "chunk", "aifc", "sunau", "nis", "ossaudiodev", "spwd", "lib2to3", "mailcap"),
        "3.12",
    ),
    "binhex": "3.10",
    "formatter": "3.9",
    "parser": "3.9",
    "symbol": "3.9",
}  # fmt: skip
"""Modules of the standard library that are gone, with the last Python that has them."""

REMOVED_NAMES: Sequence[tuple[str, str]] = (
    (r"cannot import name '(Mapping|MutableMapping|Sequence|MutableSequence|Iterable|Callable|Hashable|MutableSet|Set"
     r"|Container|Generator|Iterator|OrderedDict|Sized)' from 'collections'", "3.9"),
    (r"module '(collections)' has no attribute '(?:Mapping|MutableMapping|Sequence|Iterable|Callable)'", "3.9"),
    (r"module 'ast' has no attribute '(Str|Num|Bytes|NameConstant|Ellipsis)'", "3.13"),
    (r"(?:module 'inspect' has no attribute|cannot import name) '(getargspec|formatargspec)'", "3.10"),
    (r"(?:module 'asyncio' has no attribute|cannot import name) '(coroutine)'", "3.10"),
    (r"module 'pkgutil' has no attribute '(ImpImporter)'", "3.11"),
    (r"(?:module 'configparser' has no attribute|cannot import name) '(SafeConfigParser)'", "3.11"),
    (r"'\w*Parser' object has no attribute '(readfp)'", "3.11"),
    (r"module 'locale' has no attribute '(format)'", "3.11"),
    (r"module 'ssl' has no attribute '(wrap_socket|match_hostname)'", "3.11"),
    (r"module 'unittest' has no attribute '(makeSuite)'", "3.12"),
    (r"module 'typing' has no attribute '(io|re)'", "3.12"),
    (r"module 'base64' has no attribute '(encodestring|decodestring)'", "3.8"),
    (r"cannot import name '(gcd)' from 'fractions'", "3.8"),
    (r"'HTMLParser' object has no attribute '(unescape)'", "3.8"),
    (r"'\w*Thread' object has no attribute '(isAlive)'", "3.8"),
    (r"No module named '(xml\.etree\.cElementTree)'", "3.8"),
    (r"(Population must be a sequence)", "3.10"),
)  # fmt: skip
"""Patterns of errors about names that Python no longer has, with the last Python that has them."""

LATER_NAMES: Sequence[tuple[str, str]] = (
    (r"No module named '(tomllib)'", "3.11"),
    (r"No module named '(zoneinfo)'", "3.9"),
    (r"cannot import name '(UTC)' from 'datetime'", "3.11"),
    (r"cannot import name '(StrEnum)' from 'enum'", "3.11"),
    (r"cannot import name '(Self|LiteralString|Never|NotRequired|Required|Unpack|assert_never)' from 'typing'", "3.11"),
    (r"cannot import name '(ParamSpec|TypeAlias|Concatenate|TypeGuard)' from 'typing'", "3.10"),
    (r"cannot import name '(override|TypeAliasType)' from 'typing'", "3.12"),
    (r"cannot import name '(batched)' from 'itertools'", "3.12"),
    (r"cannot import name '(TypeIs|ReadOnly)' from 'typing'", "3.13"),
    (r"(unsupported operand type\(s\) for \|): '(?:type|_GenericAlias)' and '(?:type|NoneType)'", "3.10"),
    (r"module 'asyncio' has no attribute '(TaskGroup|timeout)'", "3.11"),
)
"""Patterns of errors about names that an older Python does not have yet, with the first Python that has them."""

MOVED: Sequence[tuple[str, str]] = (
    (r"cannot import name '(?:url_\w+|uri_to_iri|iri_to_uri)' from 'werkzeug\.urls'", "werkzeug<3"),
    (r"cannot import name '(?:__version__)' from 'werkzeug'|module 'werkzeug' has no attribute '__version__'",
     "werkzeug<3.1"),
    (r"cannot import name '(?:safe_str_cmp|pbkdf2_\w+)' from 'werkzeug\.security'", "werkzeug<2.1"),
    (r"cannot import name '(?:BaseResponse|BaseRequest|\w+Mixin)' from 'werkzeug\.wrappers'", "werkzeug<2.1"),
    (r"No module named 'werkzeug\.wrappers\.\w+'", "werkzeug<2.1"),
    (r"cannot import name '(?:parse_rule)' from 'werkzeug\.routing'", "werkzeug<2.2"),
    (r"cannot import name '(?:run_with_reloader)' from 'werkzeug\.serving'", "werkzeug<2.3"),
    (r"cannot import name '\w+' from 'werkzeug' ", "werkzeug<1"),
    (r"No module named 'werkzeug\.contrib", "werkzeug<1"),
    (r"cannot import name '(?:escape|Markup|contextfunction|contextfilter|evalcontextfilter|environmentfilter"
     r"|evalcontextfunction|environmentfunction|Undefined\w*Filter)' from 'jinja2", "jinja2<3.1"),
    (r"module 'jinja2' has no attribute '(?:escape|Markup|contextfunction|contextfilter|evalcontextfilter"
     r"|environmentfilter)'", "jinja2<3.1"),
    (r"cannot import name 'soft_unicode' from 'markupsafe'", "markupsafe<2.1"),
    (r"cannot import name '(?:json|TimedJSONWebSignatureSerializer|JSONWebSignatureSerializer)' from 'itsdangerous'",
     "itsdangerous<2.1"),
    (r"cannot import name '(?:escape|Markup)' from 'flask'", "flask<3"),
    (r"cannot import name '__version__' from 'flask'|module 'flask' has no attribute '__version__'", "flask<3.2"),
    (r"cannot import name '(?:_request_ctx_stack|_app_ctx_stack)' from 'flask", "flask<2.3"),
    (r"cannot import name '(?:JSONEncoder|JSONDecoder)' from 'flask\.json'", "flask<2.3"),
    (r"module 'flask\.json' has no attribute 'JSON(?:Encoder|Decoder)'", "flask<2.3"),
    (r"cannot import name 'safe_join' from 'flask'|module 'flask' has no attribute 'safe_join'", "flask<2.1"),
    (r"cannot import name '(?:json_available)' from 'flask", "flask<2"),
    (r"No module named 'flask\._compat'", "flask<2"),
    (r"'(?:Flask|Blueprint)' object has no attribute '(?:before_first_request|before_app_first_request|json_encoder"
     r"|json_decoder|propagate_exceptions|session_cookie_name|send_file_max_age_default)'", "flask<2.3"),
    (r"module 'sqlalchemy' has no attribute '__all__'", "sqlalchemy<2"),
    (r"'(?:Engine|OptionEngine)' object has no attribute '(?:execute|table_names|has_table)'", "sqlalchemy<2"),
    (r"Textual SQL expression .* should be explicitly declared as text", "sqlalchemy<2"),
    (r"Not an executable object: '", "sqlalchemy<2"),
    (r"directly inherits TypingOnly but has additional attributes", "sqlalchemy>=2.0.31"),
    (r"cannot import name '(?:BaseQuery|SignallingSession|_QueryProperty|get_debug_queries)' from 'flask_sqlalchemy",
     "flask-sqlalchemy<3"),
    (r"__init__\(\) got an unexpected keyword argument '(?:use_native_unicode)'", "flask-sqlalchemy<3"),
    (r"cannot import name 'MigrateCommand' from 'flask_migrate'", "flask-migrate<3"),
    (r"cannot import name '(?:TextField|Required)' from 'wtforms", "wtforms<3"),
    (r"No module named 'wtforms\.(?:ext|fields\.html5|compat|widgets\.html5)", "wtforms<3"),
    (r"cannot import name '(?:Form)' from 'flask_wtf'", "flask-wtf<0.15"),
    (r"Limiter\.__init__\(\) got multiple values for argument 'key_func'", "flask-limiter<3"),
    (r"attribute '__default__' of 'typing\.\w+' objects is not writable", "typing_extensions>=4.12"),
    (r"module 'typing' has no attribute '_ClassVar'|type 'typing\.TypeVar' is not an acceptable base type",
     "typing_extensions>=4.12"),
    (r"_evaluate\(\) missing 1 required keyword-only argument: 'recursive_guard'", "pydantic>=1.10.18"),
    (r"`BaseSettings` has been moved to the `pydantic-settings` package", "pydantic<2"),
    (r"module 'numpy' has no attribute '(?:float|int|bool|object|complex|str)'", "numpy<1.24"),
    (r"compiled using NumPy 1\.x cannot be run in|numpy\.dtype size changed|`np\.\w+` was removed in the NumPy 2",
     "numpy<2"),
    (r"cannot import name 'appengine' from 'urllib3|No module named 'urllib3\.packages\.six", "urllib3<2"),
    (r"module 'marshmallow' has no attribute '__version_info__'|cannot import name 'from_dict' from 'marshmallow",
     "marshmallow<4"),
    (r"module 'bcrypt' has no attribute '__about__'|password cannot be longer than 72 bytes", "bcrypt<4.1"),
    (r"cannot import name 'ContextualVersionConflict' from 'importlib|No module named 'pkg_resources'",
     "setuptools<81"),
    (r"cannot import name '(?:ChatCompletion)' from 'openai'|tried to access openai\.\w+, but this is no longer",
     "openai<1"),
    (r"cannot import name 'formatargspec'", "wrapt>=1.14"),
)  # fmt: skip
"""Patterns of errors about what a package no longer has, or has only since a version, with the requirement to add."""

DISTRIBUTIONS: Mapping[str, str] = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "jwt": "pyjwt",
    "jose": "python-jose",
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
    "psycopg": "psycopg[binary]",
    "dateutil": "python-dateutil",
    "magic": "python-magic",
    "Crypto": "pycryptodome",
    "Cryptodome": "pycryptodomex",
    "OpenSSL": "pyopenssl",
    "serial": "pyserial",
    "usb": "pyusb",
    "zmq": "pyzmq",
    "git": "gitpython",
    "github": "pygithub",
    "docx": "python-docx",
    "pptx": "python-pptx",
    "fitz": "pymupdf",
    "slugify": "python-slugify",
    "decouple": "python-decouple",
    "telegram": "python-telegram-bot",
    "attr": "attrs",
    "websocket": "websocket-client",
    "socketio": "python-socketio",
    "engineio": "python-engineio",
    "nacl": "pynacl",
    "ldap": "python-ldap",
    "pkg_resources": "setuptools<81",
    "barcode": "python-barcode",
    "googleapiclient": "google-api-python-client",
    "whitenoise": "whitenoise",
    "flask_wtf": "flask-wtf",
    "flask_restful": "flask-restful",
    "markdown": "markdown",
    "geventwebsocket": "gevent-websocket",
    "newrelic": "newrelic",
    "ddtrace": "ddtrace",
}
"""Distributions whose name differs from that of their module."""


def distribution(module: str) -> str:
    """The package that most likely holds a module."""
    top = module.partition(".")[0]
    return DISTRIBUTIONS.get(top, top.replace("_", "-") if top.startswith("flask_") else top)
