"""The subcommands of `routellm`; each module holds the function of one command."""
