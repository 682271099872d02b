"""smtpd_ps: a privilege-separated mail server that reads OpenSMTPD's smtpd.conf."""

__version__ = "0.1.0"
