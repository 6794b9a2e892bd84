"""``fastnet check``: the gradient of a function or of a network of one's own, against central differences."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from fastnet.checking import GradientCheck, check_gradient
from fastnet.cli import arguments
from fastnet.cli.arguments import CommandError, UsageError

EXPLANATION = """
TARGET names what to check, as in mymodule:net. It is one of

  a network     anything with params, loss(x, t) and gradient(x, t); --at names its batch, the pair (x, t)
  a function    of an array or of a dict of arrays; --at names the point, --gradient the function's gradient

Where TARGET or the value of --at is a function without arguments, it is called. The module is looked for in the present
folder too. The exit code is 0 if the gradient passes, and 1 if it does not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Compare a gradient with central differences, entry by entry, and print the verdict."
    parser.epilog = EXPLANATION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("target", metavar="TARGET", type=name_of, help="module:name of the function or the network")
    add("--at", metavar="NAME", required=True, help="the point x, or the batch (x, t): a name in that module")
    add("--gradient", metavar="NAME", help="the gradient: a name in that module (default: the network's own)")
    add("--h", metavar="H", type=arguments.positive, help="step of the differences (default: by the dtype)")
    add("--rtol", metavar="R", type=arguments.positive, help="relative difference allowed (default: by the dtype)")
    add("--worst", metavar="N", type=arguments.count, default=5, help="entries to list (default: 5)")
    add("--json", metavar="FILE", type=Path, help="also write the result to this file")
    parser.set_defaults(run=run, refuse=parser.error)


def name_of(text: str) -> tuple[str, str]:
    """Split ``module:name``."""
    module, _, name = text.partition(":")
    if not module or not name:
        raise argparse.ArgumentTypeError(f"must be module:name, as in mymodule:net, not {text!r}")
    return module, name


def run(options: argparse.Namespace) -> None:
    arguments.check_outputs(options, json="written")
    module_name, name = options.target
    module = _import(module_name)
    target = _find(module, name, "TARGET")
    if not hasattr(target, "params") and options.gradient is None and callable(target):
        target = _made(target)
    at = _find(module, options.at, "--at")
    at = at() if callable(at) else at
    gradient = _gradient(module, target, options)
    try:
        check = check_gradient(target, gradient, at, options.h, rtol=options.rtol, worst=options.worst)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    print(check)
    if options.json is not None:
        arguments.write_json(options.json, check.to_dict())
    _report(check)


def _report(check: GradientCheck) -> None:
    if not check.passed:
        raise CommandError("the gradient does not pass")


def _import(name: str) -> Any:
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"can't import {name!r}: {error}") from error
    finally:
        sys.path.remove(os.getcwd())


def _find(module: Any, name: str, argument: str) -> Any:
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"argument {argument}: {module.__name__!r} has no {name!r}")
        found = getattr(found, part)
    return found


def _made(target: Any) -> Any:
    """Return the network that a class or function without arguments makes."""
    try:
        return target()
    except TypeError as error:
        raise UsageError(
            f"a function needs --gradient, and a network must be made without arguments: {error}"
        ) from error


def _gradient(module: Any, target: Any, options: argparse.Namespace) -> Any:
    if options.gradient is not None:
        return _find(module, options.gradient, "--gradient")
    if not hasattr(target, "gradient"):
        raise UsageError("argument --gradient: the network has no gradient of its own, so that this must name one")
    return target.gradient
