"""What does an agent do, and what return does it get?

Command:  python lab3/play.py --run ppo-LunarLander-v3-seed0
Time:     a few seconds
Expect:   a return of 258 ± 27 over 20 episodes of LunarLander-v3; that of its test was 269

    python lab3/play.py --run RUN --episodes 3 --output landing.gif        an animated GIF; .mp4 makes a video
    python lab3/play.py --run RUN --episodes 500 --output played.json      mean return, and how many ended how
    python lab3/play.py --run RUN --render human                           in a window, where there is a screen
    python lab3/play.py --random --env LunarLander-v3 --episodes 100       what acting at random is worth

A trained agent acts as in its run's evaluations, greedily as a rule, with the weights that these chose. The episodes
start from seeds that no training, evaluation or test used. A film holds the first five episodes.
"""

import dataclasses
import os
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from lab1.engine.config import RunConfig, UsageError, find_run, flag, require
from lab1.engine.launch import launch, prepare

FILMED = 5  # episodes, at most, that a film holds


@dataclasses.dataclass
class Config(RunConfig):
    """The flags of this script."""

    seed: int = 0
    """Seed of the episodes, and of the random agent's actions."""
    dry_run: bool = False
    """See that everything works: one episode of at most 50 steps, of the random agent where no other is named."""
    run: Annotated[str | None, flag("RUN")] = None
    """The run whose agent plays, a folder or a name under --model-dir or among the published ones."""
    random: bool = False
    """Let the random agent play instead, in --env."""
    env: Annotated[str | None, flag("ID")] = None
    """The random agent's environment (default: CartPole-v1); a run has its own. One that you wrote: its id with the
    module that registers it, as my_envs:Maze-v0, for a run as well."""
    episodes: int = 20
    """Episodes to play."""
    actions: Annotated[Literal["greedy", "sampled"] | None, flag("{greedy,sampled}")] = None
    """How a run's agent acts: by the most probable action, or by one drawn from its policy (default: as in its run)."""
    output: Annotated[Path | None, flag("FILE")] = None
    """Film the first five episodes: FILE.gif, small, at most 25 frames a second; or FILE.mp4, in VP9, which browsers
    and players such as VLC show (in MPEG-4, which browsers do not show, where OpenCV cannot write VP9). Or write down
    what all episodes come to, without a film: FILE.json."""
    render: Annotated[Literal["human"] | None, flag("human")] = None
    """human: show the episodes in a window."""

    def __post_init__(self) -> None:
        if self.dry_run:
            self.episodes = 1
            self.random = self.random or self.run is None

    def check(self) -> None:
        super().check()
        require(self.resume is None, "--resume: there is nothing to resume here; run it again")
        require((self.run is None) == self.random, "either --run RUN is needed or --random, with --env ID")
        own = self.env is None or ":" in self.env
        require(own or self.random, f"--env {self.env}: a run plays in its own; this goes with --random")
        require(self.actions is None or not self.random, "--actions: the random agent has no policy to draw from")
        require(self.episodes >= 1, f"--episodes {self.episodes}: at least 1 is needed")
        if self.output is not None:
            require(self.render is None, "--output and --render human: one of them at a time")
            suffix = self.output.suffix.lower()
            known = suffix in (".gif", ".mp4", ".json")
            require(known, f"--output {self.output}: a name that ends in .gif, .mp4 or .json is needed")
            require(self.output.parent.is_dir(), f"--output {self.output}: there is no folder {self.output.parent}")
            require(not self.output.exists(), f"--output {self.output}: it is there already; name another file")
        screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        require(self.render is None or bool(screen), "--render human: there is no screen here; use --output FILE.gif")


def play(env, act, seed: int, episodes: int, film=None, max_steps: int | None = None) -> list[dict[str, Any]]:
    """Play episodes; prints and returns of each its ``return``, ``length`` and, where the environment says how it
    ended, ``outcome``.

    Args:
        env: a single environment; only its first reset is seeded.
        act: maps an observation to an action.
        film: takes the pictures of the first episodes (see ``lab3/environments/film.py``).
        max_steps: an episode is left after so many steps.
    """
    played = []
    for number in range(1, episodes + 1):
        observation, info = env.reset(seed=seed if number == 1 else None)
        total, length, over = 0.0, 0, False
        while not over:
            if film is not None and number <= FILMED:
                film.add(env.render())
            observation, reward, terminated, truncated, info = env.step(act(observation))
            total, length = total + float(reward), length + 1
            over = terminated or truncated or length == max_steps
        played.append({"return": total, "length": length} | ({"outcome": info["outcome"]} if "outcome" in info else {}))
        if film is not None and number <= FILMED:
            film.add(env.render())
        print(f"episode {number:3d}  return {total:9.2f}  {length} steps  {info.get('outcome', '')}".rstrip())
    return played


def in_numbers(played: list[dict[str, Any]]) -> dict[str, Any]:
    """What the episodes come to: how many ``episodes``, mean ``return`` and ``return_sd`` (None of a single one), and
    ``outcomes``, how many ended how, where the environment says so."""
    returns = [episode["return"] for episode in played]
    outcomes = Counter(episode["outcome"] for episode in played if "outcome" in episode)
    return {
        "episodes": len(played),
        "return": statistics.fmean(returns),
        "return_sd": statistics.stdev(returns) if len(returns) > 1 else None,
        "outcomes": dict(outcomes.most_common()),
    }


def summary(played: list[dict[str, Any]]) -> str:
    """The same as people read it: mean return ± standard deviation over the episodes, and the share of each outcome."""
    found = in_numbers(played)
    line = f"return {found['return']:.2f}"
    line += f" ± {found['return_sd']:.2f}" if len(played) > 1 else ""
    line += f" over {len(played)} episode{'s' if len(played) > 1 else ''}"
    return line + "".join(f", {outcome} {count / len(played):.0%}" for outcome, count in found["outcomes"].items())


def main(config: Config) -> list[dict[str, Any]]:
    """Play; returns what ``play`` does."""
    import gymnasium
    import numpy as np

    from lab1.engine import logbook
    from lab3.environments import film, vector
    from lab3.trainer import load_agent

    device = prepare(config)
    seeds = np.random.SeedSequence([config.seed, vector.PURPOSES.index("play")]).generate_state(3).tolist()
    env_id = vector.find_id(config.env or "CartPole-v1")
    agent = None
    if not config.random:
        run = find_run(config.run, config.runs_folder(), config.published_folder(), "best.pt")
        agent = load_agent(run, device, config.actions, seeds[2])
        require(config.env is None or env_id == agent.env_id, f"--env {config.env}: it plays {agent.env_id}")
        env_id = agent.env_id
    written = config.output is not None and config.output.suffix.lower() == ".json"
    filmed = None if written else config.output
    if config.render is None:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen, and complain
    env = vector.make_single(env_id, "rgb_array" if filmed is not None else config.render)
    env.action_space.seed(seeds[1])

    def act(observation):
        return env.action_space.sample() if agent is None else agent.act(np.asarray(observation)[None])[0]

    print(f"{'the random agent' if agent is None else config.run} plays {env_id}", flush=True)
    limit = 50 if config.dry_run else None
    try:
        with film.open_film(filmed, env.metadata.get("render_fps", 25)) as strip:
            played = play(env, act, seeds[0], config.episodes, strip, limit)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UsageError(f"{env_id} cannot draw itself: {str(error).splitlines()[0]}") from None
    finally:
        env.close()
    print(summary(played))
    if written:
        acts = "random" if agent is None else "greedy" if agent.generator is None else "sampled"
        who = {"script": "lab3/play.py", "run": config.run, "env": env_id, "actions": acts, "seed": config.seed}
        logbook.write_results(who | in_numbers(played) | {"environment": logbook.environment(device)}, config.output)
        print(f"{config.output} says so, too")
    if filmed is not None:
        print(f"{filmed} holds the film of {min(FILMED, len(played))} of them")
    return played


if __name__ == "__main__":
    launch(main, Config)
