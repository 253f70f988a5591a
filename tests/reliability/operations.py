"""What Python tells its audit hooks of files, as it is about to do it."""

FILES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
REMOVALS = ("os.remove", "os.rmdir", "shutil.rmtree")
