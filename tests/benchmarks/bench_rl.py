"""PPO and DQN on CartPole-v1 against Stable-Baselines3 and CleanRL, in one process and in turn; and what a user waits
for.

    python tests/benchmarks/bench_rl.py                  3 rounds of each
    python tests/benchmarks/bench_rl.py --rounds 5 --only ppo
    python tests/benchmarks/bench_rl.py --only user      seconds until CartPole-v1 and LunarLander-v3 are solved by PPO
    python tests/benchmarks/bench_rl.py --only cleanrl --cleanrl PATH/cleanrl/ppo.py

Stable-Baselines3 gets our hyperparameters, from lab3/config.py; in "zoo" both get those of RL Baselines3 Zoo, in
"cleanrl" those of CleanRL's ppo.py, which is run as it is from where you have it. So the networks, environment steps,
minibatches and epochs are the same, and the updates to each step. Ours has TensorBoard and checkpoints, as a user gets
them, but a single evaluation of one episode and no test, as the others have neither; "user" has all of that.
Stable-Baselines3 logs nothing, CleanRL to TensorBoard. "single environments" plays the same single environments as the
others, in place of gymnasium's own vector version of CartPole.
Round r has seed r. Speed is over the whole training; a ratio is the median over the rounds of that round's ratio.
Returns are those of the last weights, greedy, over 20 episodes from starts that all share.
"""

import argparse
import contextlib
import io
import os
import runpy
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import report
import torch

from lab3 import train_dqn, train_ppo
from lab3.algorithms.start import set_up
from lab3.environments import vector
from lab3.environments.agent import Agent, play_episodes

ENV = "CartPole-v1"
# rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1
ZOO_PPO = dict(
    steps=100_000,
    num_envs=8,
    rollout=32,
    batch_size=256,
    update_epochs=20,
    learning_rate=1e-3,
    anneal="linear",
    anneal_clip="linear",
    gamma=0.98,
    gae_lambda=0.8,
    clip=0.2,
    entropy=0.0,
)
# The defaults of CleanRL's ppo.py; its value loss has a further factor of a half.
CLEANRL_PPO = {
    **{"steps": 100_000, "num_envs": 4, "rollout": 128, "batch_size": 128, "update_epochs": 4, "learning_rate": 2.5e-4},
    **{"anneal": "linear", "anneal_clip": "none", "gamma": 0.99, "gae_lambda": 0.95, "clip": 0.2, "entropy": 0.01},
    "value_weight": 0.25,
}


def greedy_return(act) -> float:
    """Mean return of 20 greedy episodes."""
    envs = vector.make(ENV, 20, seed=0, purpose="play")
    returns, _ = play_episodes(act, envs)
    envs.close()
    return float(returns.mean())


def ours(script, flags: dict[str, Any]):
    """A function that trains with a seed and returns how many steps that took and how the agent acts."""

    def train(seed: int):
        folder = Path(tempfile.mkdtemp())
        config = script.Config(**flags, seed=seed, evaluations=1, evaluation_episodes=1, model_dir=folder, device="cpu")
        trainer = set_up(config)
        trainer.say = lambda line: None
        trainer.train()
        return trainer.env_steps, Agent(trainer.model.eval(), ENV).act

    return train


def peer_ppo(flags: dict[str, Any]):
    """The same with Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    config = train_ppo.Config(**flags)

    def train(seed: int):
        torch.set_flush_denormal(False)  # our DQN sets it, in this process, too
        envs = make_vec_env(ENV, config.num_envs, seed=seed)
        learner = PPO(
            "MlpPolicy",
            envs,
            n_steps=config.rollout,
            batch_size=config.batch_size,
            n_epochs=config.update_epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            ent_coef=config.entropy,
            learning_rate=lambda left: config.learning_rate * (left if config.anneal == "linear" else 1),
            clip_range=lambda left: config.clip * (left if config.anneal_clip == "linear" else 1),
            policy_kwargs={"net_arch": list(config.hidden)},
            seed=seed,
            device="cpu",
        )
        rows = config.rollout * config.num_envs
        learner.learn(config.steps // rows * rows)  # whole rollouts, as ours: it would begin another one
        return learner.num_timesteps, lambda seen: learner.predict(seen, deterministic=True)[0]

    return train


def peer_dqn(flags: dict[str, Any]):
    """The same with Stable-Baselines3's DQN."""
    from stable_baselines3 import DQN
    from stable_baselines3.common.env_util import make_vec_env

    config = train_dqn.Config(**flags)

    def train(seed: int):
        torch.set_flush_denormal(False)
        learner = DQN(
            "MlpPolicy",
            make_vec_env(ENV, config.num_envs, seed=seed),
            learning_rate=lambda left: config.learning_rate * (left if config.anneal == "linear" else 1),
            buffer_size=config.buffer_size,
            learning_starts=config.learning_starts,
            gamma=config.gamma,
            n_steps=config.n_step,
            train_freq=config.train_every,
            gradient_steps=config.gradient_steps,
            batch_size=config.batch_size,
            target_update_interval=config.target_every,
            exploration_fraction=config.exploration,
            exploration_final_eps=config.final_epsilon,
            policy_kwargs={"net_arch": list(config.hidden), "optimizer_kwargs": {"eps": 1e-5}},
            seed=seed,
            device="cpu",
        )
        learner.learn(config.steps)
        return learner.num_timesteps, lambda seen: learner.predict(seen, deterministic=True)[0]

    return train


def cleanrl_ppo(script: Path, flags: dict[str, Any]):
    """The same with CleanRL's ppo.py, without the clipping of its value loss, which ours does not have."""

    def train(seed: int):
        arguments = ["--total-timesteps", str(flags["steps"]), "--seed", str(seed), "--no-clip-vloss", "--no-cuda"]
        back, own = Path.cwd(), sys.argv
        sys.argv = [str(script), *arguments]
        os.chdir(tempfile.mkdtemp())  # it writes to runs/ where it is started
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                left = runpy.run_path(str(script), run_name="__main__")
        finally:
            os.chdir(back)
            sys.argv = own
        agent = left["agent"]

        def act(seen):
            with torch.no_grad():
                return agent.actor(torch.from_numpy(seen)).argmax(1).numpy()

        return left["global_step"], act

    return train


def workloads(only: str | None, cleanrl: Path | None, **more: Any) -> dict[str, dict[str, Any]]:
    """``{workload: {who: function that trains}}``, with ``more`` flags; the last one of each workload is the peer."""

    def ppo(flags: dict[str, Any], who: str, peer) -> dict[str, Any]:
        single = flags | {"vectorization": "sync"}
        return {"ours": ours(train_ppo, flags), "ours, single environments": ours(train_ppo, single), who: peer}

    def dqn(flags: dict[str, Any]) -> dict[str, Any]:
        return {"ours": ours(train_dqn, flags), "Stable-Baselines3": peer_dqn(flags)}

    if only == "cleanrl":
        return {"CleanRL's PPO": ppo(CLEANRL_PPO | more, "CleanRL", cleanrl_ppo(cleanrl, CLEANRL_PPO | more))}
    found = {
        "PPO": ppo(more, "Stable-Baselines3", peer_ppo(more)),
        "zoo (PPO)": ppo(ZOO_PPO | more, "Stable-Baselines3", peer_ppo(ZOO_PPO | more)),
        "DQN": dqn(more),
        "DQN without n-step returns": dqn({"n_step": 1} | more),
    }
    return {name: ways for name, ways in found.items() if only is None or name.lower().startswith(only)}


def compare(name: str, ways: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Train every way once a round, in turn; print the table, and return what is in it."""
    speeds, costs, returns, seconds = ({who: [] for who in ways} for _ in range(4))
    for seed in range(rounds):
        for who, train in ways.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            steps, act = train(seed)
            seconds[who].append(time.perf_counter() - began)
            speeds[who].append(steps / seconds[who][-1])
            costs[who].append((time.process_time() - began_cpu) / steps)
            returns[who].append(greedy_return(act))
    *_, peer = ways
    print(f"\n{name}, {ENV}, {torch.get_num_threads()} thread, median of {rounds} rounds")
    print(f"{'':27s}{'steps/s':>9s}{'min':>9s}{'max':>9s}{'ratio':>7s}{'by CPU time':>13s}   greedy return by round")
    ratios = {who: report.ratio(speeds[peer], speeds[who]) for who in ways}
    for who, ratio in ratios.items():
        by_cpu = report.ratio(costs[who], costs[peer])
        middle, low, high = statistics.median(speeds[who]), min(speeds[who]), max(speeds[who])
        shown = ", ".join(f"{value:.0f}" for value in returns[who])
        print(f"{who:27s}{middle:9,.0f}{low:9,.0f}{high:9,.0f}{ratio:6.2f}x{by_cpu:12.2f}x   {shown}")
    return {"rounds": rounds, "peer": peer, "seconds": seconds, "ratio": ratios, "returns": returns}


def user(env: str, target: float, rounds: int) -> list[dict[str, Any]]:
    """train_ppo.py as it comes: seconds of training until the last 20 training episodes reached the environment's
    threshold, and until a greedy evaluation reached the target; the test at the end. Printed, and returned by seed."""
    print(f"\ntrain_ppo.py --env {env}")
    found = []
    for seed in range(rounds):
        config = train_ppo.Config(env=env, seed=seed, device="cpu", model_dir=Path(tempfile.mkdtemp()))
        began, began_cpu = time.perf_counter(), time.process_time()
        trainer = set_up(config)
        trainer.train()
        test = trainer.test()
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        reached = next((point["seconds"] for point in trainer.history if point["return"] >= target), None)
        solved = trainer.solved and f"after {trainer.solved['seconds']:.1f} s, {trainer.solved['step']:,} steps"
        print(f"seed {seed}: {trainer.threshold:.0f} in training {solved or 'never'}", end="; ")
        print(f"greedy {target:.0f} {f'after {reached:.1f} s' if reached else 'never'}", end="; ")
        print(f"test {test['return']:.1f} ± {test['return_sd']:.1f} after {trainer.seconds:.1f} s of training", end=" ")
        print(f"({wall:.1f} s with evaluations and test, {cpu:.1f} s of CPU time)")
        spent = {"training": trainer.seconds, "all": wall, "to_target": reached}
        found.append({"seed": seed, "seconds": spent, "solved": trainer.solved, "test": test["return"]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["ppo", "zoo", "dqn", "cleanrl", "user"])
    parser.add_argument("--cleanrl", type=Path, help="where CleanRL's ppo.py is, for --only cleanrl")
    arguments = report.parse(parser)
    cleanrl = arguments.cleanrl and arguments.cleanrl.resolve()
    if arguments.only == "cleanrl" and not (cleanrl and cleanrl.is_file()):
        raise SystemExit("--only cleanrl needs --cleanrl PATH, the ppo.py of https://github.com/vwxyzjn/cleanrl")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    found: dict[str, Any] = {}
    if arguments.only != "user":
        try:
            warm_up = workloads(arguments.only, cleanrl, steps=3000)  # what is imported at first use is imported here
        except ImportError:
            raise SystemExit("Stable-Baselines3 is not installed: pip install stable-baselines3") from None
        for ways in warm_up.values():
            for train in ways.values():
                train(0)
        for name, ways in workloads(arguments.only, cleanrl).items():
            found[name] = compare(name, ways, arguments.rounds)
    if arguments.only in (None, "user"):
        found["user"] = {"CartPole-v1": user("CartPole-v1", 475, arguments.rounds)}
        found["user"]["LunarLander-v3"] = user("LunarLander-v3", 240, 1)
    report.write(__file__, arguments, found)


if __name__ == "__main__":
    main()
