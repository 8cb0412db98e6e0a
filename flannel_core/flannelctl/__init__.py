"""flannelctl, the operator's command. Nothing of the agent imports this package."""
