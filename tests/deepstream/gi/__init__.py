def require_version(name, version):
    assert (name, version) == ("Gst", "1.0")
