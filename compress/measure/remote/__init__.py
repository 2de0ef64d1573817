"""Other devices as targets, over ssh or adb."""
