"""The subcommands of ``gated``, a module each. ``add(commands)`` adds its parser, whose ``run`` gives the status."""
