"""Environments for the three algorithms: made, seeded, and, where they are plain data, saved and restored.

All vector environments reset themselves in the mode NEXT_STEP: the step after an episode's end ignores the action and
returns the first observation of the next episode, with reward 0. So the observation that a step returns is always the
true successor of the one before, also where a time limit cut the episode short, and an algorithm leaves out the row
after an end.
"""

import contextlib
import importlib
import os
import sys
from enum import Enum
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import (
    DtypeObservation,
    FlattenObservation,
    FrameStackObservation,
    GrayscaleObservation,
    ResizeObservation,
)

from lab1.engine.config import UsageError, require
from lab3.environments import navigation as navigation  # registers NavigationGoal-v0
from lab3.environments.car import GiveUp, HeldAction

# What an environment is made with where the algorithms need it so: a choice of five actions for the car.
KEYWORDS: dict[str, dict[str, Any]] = {"CarRacing-v3": {"continuous": False}}
HELD = {"CarRacing-v3": 4}  # frames for which each action is held
PATIENCE = {"CarRacing-v3": 25}  # steps without a reward that end an episode of training, of no other purpose
FRAMES, FRAME_SIZE = 4, 64  # grey frames that make up an observation, and their height and width in pixels
MAX_EPISODE_STEPS = 1000  # a time limit for environments that have none of their own: a greedy policy may go in circles
PURPOSES = ("train", "validation", "test", "play")  # each starts from seeds of its own


def find_id(env: str) -> str:
    """The id in what ``--env`` says, such as ``my_envs:Maze-v0``: the module is imported, which registers one's own
    environments, and the id stays. An id alone is returned as it is. The module is looked for in the current folder,
    too.

    For what a user types, never for what a run's file says: that goes to ``make``, which imports nothing by its name.

    Raises:
        UsageError: where there is no such module, it cannot import what it needs, or registers no such environment.
    """
    module, colon, env_id = env.rpartition(":")
    if not colon:
        return env
    named = bool(env_id) and all(part.isidentifier() for part in module.split("."))
    require(named, f"--env {env}: a module and an id are needed, such as my_envs:Maze-v0")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a script's path begins with the script's folder
    try:
        file = getattr(importlib.import_module(module), "__file__", None) or module
        gymnasium.spec(env_id)
    except ImportError as error:
        raise UsageError(f"--env {env}: {error}") from None
    except gymnasium.error.Error as error:
        raise UsageError(f"--env {env}: {file} registers no such environment: {str(error).splitlines()[0]}") from None
    return env_id


def make_single(env_id: str, render_mode: str | None = None) -> gymnasium.Env:
    """One environment whose observations are a vector ``[D]`` of floats, or grey frames ``[4, 64, 64]`` of uint8.

    Raises:
        UsageError: where there is no such environment, something that it needs is not installed, or its
            actions are neither discrete nor a vector.
    """
    # gymnasium would import the module in "module:id", whatever a run's file names; find_id does what a user types.
    require(":" not in env_id, f"--env {env_id}: an id without a module is needed, such as CartPole-v1")
    try:
        limit = gymnasium.spec(env_id).max_episode_steps or MAX_EPISODE_STEPS
        keywords = KEYWORDS.get(env_id, {}) | ({} if render_mode is None else {"render_mode": render_mode})
        env = gymnasium.make(env_id, limit, disable_env_checker=True, **keywords)
    except gymnasium.error.DependencyNotInstalled as error:
        box2d = 'pip install "gymnasium[box2d]"' if "box2d" in str(error).lower() else str(error).splitlines()[0]
        raise UsageError(f"--env {env_id}: something that it needs is not installed: {box2d}") from None
    except (gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound) as error:
        own = f"your own environment? name its module: --env my_envs:{env_id}"
        raise UsageError(f"--env {env_id}: {str(error).splitlines()[0].rstrip('.')} ({own})") from None
    except TypeError as error:
        draws = render_mode is None or "render_mode" not in str(error)
        require(draws, f"--env {env_id}: it cannot draw itself, as it takes no render_mode; leave out --output")
        raise
    except (gymnasium.error.Error, ImportError) as error:
        versions = [known for known in gymnasium.registry if known.rpartition("-v")[0] == env_id]
        guess = f"; did you mean {versions[-1]}?" if versions else ""
        raise UsageError(f"--env {env_id}: {str(error).splitlines()[0]}{guess}") from None
    if env_id in HELD:
        env = HeldAction(env, HELD[env_id])
    actions = env.action_space
    require(
        (isinstance(actions, gymnasium.spaces.Discrete) and actions.start == 0)
        or (isinstance(actions, gymnasium.spaces.Box) and len(actions.shape) == 1),
        f"--env {env_id}: its actions are {actions}; these algorithms need Discrete ones, or a Box of one dimension",
    )
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 3 and space.dtype == np.uint8:
        import cv2  # noqa: F401 (ResizeObservation needs it, and would not say why it cannot be loaded)

        colors = space.shape[-1] == 3
        require(colors, f"--env {env_id}: its images are {space.shape}; (height, width, 3) is needed: red, green, blue")
        env = GrayscaleObservation(ResizeObservation(env, (FRAME_SIZE, FRAME_SIZE)))
        return FrameStackObservation(env, FRAMES)
    if not (isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1):
        env = FlattenObservation(env)  # a discrete observation becomes one-hot
    vector = isinstance(env.observation_space, gymnasium.spaces.Box)
    require(vector, f"--env {env_id}: its observations are {space}; they must be of one length, numbers or images")
    if env.observation_space.dtype != np.float32:
        env = DtypeObservation(env, np.float32)
    return env


def make(env_id: str, num_envs: int, seed: int, purpose: str = "train", native: bool = False) -> VectorEnv:
    """``num_envs`` copies of an environment, seeded and reset once; later resets go on with the same random stream.

    Args:
        seed: the run's seed. Each copy and each ``purpose`` gets a stream of its own from it.
        purpose: one of ``PURPOSES``.
        native: take the environment's own vector implementation, in NumPy, where it has one: the same dynamics,
            several times as fast, with one random stream for all copies.

    Raises:
        UsageError: as ``make_single`` does, or where there is no native one.
    """
    seeds = np.random.SeedSequence([seed, PURPOSES.index(purpose)]).generate_state(num_envs + 1)
    if native:
        make_single(env_id).close()  # complains of what cannot be
        spec = gymnasium.spec(env_id)
        require(
            spec.vector_entry_point is not None,
            f"--vectorization native: {env_id} has no vector implementation of its own",
        )
        envs = gymnasium.make_vec(env_id, num_envs, vectorization_mode="vector_entry_point")
        require(
            envs.metadata.get("autoreset_mode") == AutoresetMode.NEXT_STEP,
            f"--vectorization native: {env_id} does not reset itself in the step after an episode's end",
        )
        envs.reset(seed=int(seeds[0]))
    else:

        def copy() -> gymnasium.Env:
            env = make_single(env_id)
            return GiveUp(env, PATIENCE[env_id]) if purpose == "train" and env_id in PATIENCE else env

        envs = SyncVectorEnv([copy] * num_envs, autoreset_mode=AutoresetMode.NEXT_STEP)
        envs.reset(seed=[int(one) for one in seeds[:-1]])
    envs.action_space.seed(int(seeds[-1]))
    return envs


def sizes(envs: VectorEnv) -> dict[str, Any]:
    """What a policy network needs to know: the shape of an observation, the number of actions, their bounds if any."""
    space, shape = envs.single_action_space, list(envs.single_observation_space.shape)
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"shape": shape, "actions": int(space.n)}
    return {"shape": shape, "actions": space.shape[0], "low": space.low.tolist(), "high": space.high.tolist()}


def require_discrete(envs: VectorEnv, env_id: str, algorithm: str) -> None:
    """Raise UsageError where the actions are continuous."""
    space = envs.single_action_space
    require(
        isinstance(space, gymnasium.spaces.Discrete),
        f"--env {env_id}: its actions are continuous, {space}; {algorithm} needs discrete ones: use train_ppo.py",
    )


# Saving and restoring. An environment can be saved whole where everything in it is plain data: numbers, texts, arrays
# and its random generator. Classic control is; the physics of Box2D, in C++, is not.


class _NotPlain(Exception):
    pass


def state(envs: VectorEnv) -> dict[str, Any]:
    """The state of every copy, in tensors and plain values: all of it, ``whole``, or where that cannot be saved only
    the random generators, with which the next episodes begin as they would have."""
    try:
        return {"whole": True, "layers": [_capture(layer) for layer in _layers(envs)]}
    except _NotPlain:
        return {"whole": False, "layers": [_generator(layer) for layer in _layers(envs)]}


def restore(envs: VectorEnv, saved: dict[str, Any]) -> bool:
    """Put environments made by the same call back to a ``state``. Returns whether they are in the middle of their
    episodes; if not, they are to be reset.

    Raises:
        ValueError: where it is the state of other environments.
    """
    layers = list(_layers(envs))
    # A native one is a single layer, whatever the number of copies.
    counts = saved["layers"][0].get("num_envs", envs.num_envs), envs.num_envs
    if len(layers) != len(saved["layers"]) or counts[0] != counts[1]:
        raise ValueError("the saved environments are not these")
    for layer, content in zip(layers, saved["layers"], strict=True):
        for name, value in content.items():
            if name == "_np_random":
                layer.np_random.bit_generator.state = _decode(value)
            else:
                setattr(layer, name, _decode(value))
    return saved["whole"]


def _layers(envs: VectorEnv):
    """The vector environment itself, then each copy's wrappers from the outermost to the environment within."""
    yield envs
    for env in getattr(envs, "envs", ()):
        while isinstance(env, gymnasium.Wrapper):
            if not isinstance(env, GiveUp):  # nothing of it is saved; runs from before it was there go on
                yield env
            env = env.env
        yield env


# What is the same in any environment made by the same call.
_FIXED = (gymnasium.Space, EnvSpec, Enum, np.dtype, type)
_ASIDE = ("metadata", "_metadata", "spec", "envs", "env_fns", "_env_obs", "_saved_kwargs", "_cached_spec")


def _capture(layer: Any) -> dict[str, Any]:
    content = {}
    for name, value in vars(layer).items():
        wrapped = name == "env" and isinstance(layer, gymnasium.Wrapper)  # a layer of its own
        if wrapped or name in _ASIDE or isinstance(value, _FIXED) or callable(value):
            continue
        if isinstance(value, np.random.Generator):
            if name != "_np_random":
                raise _NotPlain
            value = value.bit_generator.state
        content[name] = _encode(value)
    return content


def _generator(layer: Any) -> dict[str, Any]:
    generator = vars(layer).get("_np_random")
    return {} if generator is None else {"_np_random": _encode(generator.bit_generator.state)}


def _encode(value: Any) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        kind = "array" if isinstance(value, np.ndarray) else "number"
        with contextlib.suppress(TypeError):  # what torch has no type for
            return [kind, torch.from_numpy(np.array(value))]
    elif type(value) in (tuple, list):
        return [type(value).__name__, [_encode(item) for item in value]]
    elif type(value) is dict and all(type(key) is str for key in value):
        return ["dict", {key: _encode(item) for key, item in value.items()}]
    raise _NotPlain


def _decode(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind in ("array", "number"):
        array = content.cpu().numpy().copy()
        return array if kind == "array" else array[()]
    if kind == "dict":
        return {key: _decode(item) for key, item in content.items()}
    return (tuple if kind == "tuple" else list)(_decode(item) for item in content)
