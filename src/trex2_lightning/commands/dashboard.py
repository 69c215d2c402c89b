"""Save a W&B workspace that compares runs."""

from __future__ import annotations

import argparse

from trex2_lightning.commands.terminal import console


def main(arguments: list[str], prog: str = "wandb_dashboard.py") -> None:
    """`wandb_dashboard.py --entity NAME [--project NAME] [--group NAME]`"""
    parser = argparse.ArgumentParser(prog, description="Save a W&B workspace that compares runs.")
    parser.add_argument("--entity", required=True, help="user or team at W&B, whose key `wandb login` has stored")
    parser.add_argument("--project", default="trex2_lightning")
    parser.add_argument("--group", default="ablation_fusion", help="logging.group of the runs")
    options = parser.parse_args(arguments)

    from trex2_lightning.studies.dashboard import save_workspace

    console.print(save_workspace(options.entity, options.project, options.group), soft_wrap=True)
