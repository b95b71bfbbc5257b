"""CarRacing, in less time: each action held for several frames, of the last one only drawn what shows, and no training
time spent on a car that is lost."""

import math
from typing import Any

import gymnasium


class HeldAction(gymnasium.Wrapper):
    """Holds each action for several frames (Mnih et al. 2015) and draws the last of them alone: drawing takes most of
    a CarRacing frame's time. The time limit within goes on counting frames."""

    def __init__(self, env: gymnasium.Env, frames: int):
        super().__init__(env)
        self.frames = frames
        self.metadata = env.metadata | {"render_fps": env.metadata["render_fps"] / frames}
        draw_what_is_near(env.unwrapped)

    def step(self, action) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The last observation, the sum of the rewards, whether the episode terminated or was truncated, and how."""
        car, total = self.unwrapped, 0.0
        if car.render_mode != "human":
            car._render = lambda mode: None
        for left in reversed(range(self.frames)):
            if left == 0:
                vars(car).pop("_render", None)
            observation, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        vars(car).pop("_render", None)
        if observation is None:  # the episode ended in a frame that was not drawn
            observation = car.state = car._render("state_pixels")
        return observation, total, terminated, truncated, info


class GiveUp(gymnasium.Wrapper):
    """Ends an episode, as terminated, after so many steps in a row without a reward above 0. A car that has left the
    road seldom finds back, and would fill what is learned from with grass until the time limit."""

    def __init__(self, env: gymnasium.Env, patience: int):
        super().__init__(env)
        self.patience, self.waited = patience, 0

    def reset(self, **arguments) -> tuple[Any, dict[str, Any]]:
        self.waited = 0
        return self.env.reset(**arguments)

    def step(self, action) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.waited = 0 if reward > 0 else self.waited + 1
        return observation, reward, terminated or self.waited >= self.patience, truncated, info


def draw_what_is_near(car: gymnasium.Env) -> None:
    """Let a CarRacing draw the same images in less time.

    It turns each of some 700 polygons, road and grass, into pixels before it leaves out the nine tenths that lie off
    the screen. Here those go first that are too far from its centre to reach it, by one distance each; what is left is
    looked at and drawn as before, in the same order.
    """
    from gymnasium.envs.box2d import car_racing as game

    draw_road, draw_polygon = car._render_road, car._draw_colored_polygon
    center, reach = (0.0, 0.0), math.inf

    def near_road(zoom: float, translation: tuple[float, float], angle: float) -> None:
        nonlocal center, reach
        # A point p of the world is drawn at zoom * p, turned by the angle, + translation: the way back of the middle of
        # the screen, and how far from it a polygon's first corner can be where another corner is on the screen or
        # within the margin that the game leaves around it.
        x, y = ((game.WINDOW_W / 2 - translation[0]) / zoom, (game.WINDOW_H / 2 - translation[1]) / zoom)
        cosine, sine = math.cos(angle), math.sin(angle)
        center = cosine * x + sine * y, cosine * y - sine * x
        margin = game.MAX_SHAPE_DIM
        reach = (math.hypot(game.WINDOW_W / 2 + margin, game.WINDOW_H / 2 + margin) + margin) / zoom
        draw_road(zoom, translation, angle)

    def near_polygon(surface, polygon, color, zoom, translation, angle, clip=True) -> None:
        x, y = polygon[0]
        if not clip or (x - center[0]) ** 2 + (y - center[1]) ** 2 <= reach**2:
            draw_polygon(surface, polygon, color, zoom, translation, angle, clip)

    car._render_road, car._draw_colored_polygon = near_road, near_polygon
