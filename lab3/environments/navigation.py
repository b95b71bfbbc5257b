"""NavigationGoal-v0: drive to a goal in a square room, past obstacles that stand elsewhere in every episode.

Importing this module registers it with gymnasium. ``NavigationGoal`` says what is seen, done and rewarded;
``shaping="naive"`` brings back a flaw that such rewards often have, for the exercise about it.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from scipy import ndimage

ENV_ID = "NavigationGoal-v0"
LEFT, FORWARD, RIGHT = 0, 1, 2  # the actions
SIDE = 10.0  # of the room, in metres
DIAGONAL = SIDE * 2**0.5
AGENT_RADIUS, GOAL_RADIUS = 0.2, 0.5  # metres
OBSTACLE_RADII = (0.4, 1.0)  # metres, drawn evenly
STEP = 0.25  # metres that FORWARD drives; also the cell of the grid on which a way is looked for
HEADINGS = 24  # directions that the agent can face; LEFT and RIGHT turn by one, 15 degrees
RAYS, RANGE = 16, 5.0  # number of distance sensors, and metres beyond which they see nothing
NEAREST_START = 3.0  # metres between start and goal, at least
END_REWARD = 100.0  # at the goal; minus this at an obstacle or when time is up
SHAPING_SCALE = 10.0  # the potential at the goal; what all shaping of an episode can add up to is small beside 100
PIXELS_PER_METRE = 32

# Unit vectors by heading, and of every ray by heading [HEADINGS, RAYS, 2]; ray 0 looks ahead, the others follow
# counterclockwise. The walls, moved inwards by the agent's radius, that each ray looks towards, one for each axis.
_ANGLES = np.arange(HEADINGS) * (2 * np.pi / HEADINGS)
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], -1)
_RAY_ANGLES = _ANGLES[:, None] + np.arange(RAYS) * (2 * np.pi / RAYS)
_RAYS = np.stack([np.cos(_RAY_ANGLES), np.sin(_RAY_ANGLES)], -1)
_RAYS[_RAYS == 0] = 1e-16  # so that a ray along a wall can be divided by
_WALLS = np.where(_RAYS > 0, SIDE - AGENT_RADIUS, AGENT_RADIUS)
_CELLS = (np.arange(round(SIDE / STEP)) + 0.5) * STEP  # the middles of the grid's cells, along either axis


class NavigationGoal(gymnasium.Env):
    """A disc-shaped agent among disc-shaped obstacles.

    Observation, 18 numbers: how far the agent could go in 16 directions before it touched an obstacle or a wall, ahead
    first, then counterclockwise, 0 .. 1 for 0 .. 5 m or more; the distance of the goal's middle, 0 .. 1 for 0 to the
    room's diagonal; its direction, -1 .. 1 for -180 .. 180 degrees, 0 ahead, positive to the left.

    Actions: 0 turn left by 15 degrees, 1 drive forward 0.25 m, 2 turn right by 15 degrees.

    Reward: +100 at the goal, -100 at an obstacle or a wall or after ``max_steps``, and a small ``shaping``:

    - ``potential``: gamma phi(s') - phi(s), with phi(s) = 10 (1 - distance / diagonal) and 0 where the episode is over.
      Discounted by the same gamma it adds up to -phi(first state) whatever the agent does, so that it changes the
      order of no two policies (Ng, Harada & Russell 1999, theorem 1).
    - ``naive``: 10 (distance - next distance) / diagonal, but only where the agent comes closer. This is the flaw: who
      drives in a circle is paid for half of each round and pays nothing for the other half.
    - ``none``.

    Time that is up terminates the episode, it does not truncate it: the penalty is part of the task and nothing comes
    after it, so there is nothing to bootstrap from. As the observation does not hold the time, a value function can
    only learn how likely that end is from where the agent stands.

    At the end ``info["outcome"]`` is ``goal``, ``obstacle`` or ``time-out``. Every layout has a way: start and goal
    are in one connected part of a grid of free cells, along which the agent can drive.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 20}  # noqa: RUF012 (as gymnasium has it)

    def __init__(
        self,
        shaping: str = "potential",
        gamma: float = 0.99,
        obstacles: int = 8,
        max_steps: int = 200,
        render_mode: str | None = None,
    ):
        """Args:
        shaping: ``potential``, ``naive`` or ``none``.
        gamma: the discount factor of whoever learns, for ``potential``.
        obstacles: how many there are.
        max_steps: the time limit.
        render_mode: ``rgb_array``, ``human`` (a window) or None.

        Raises:
            ValueError: for a ``shaping`` or ``render_mode`` that there is not.
        """
        if shaping not in ("potential", "naive", "none"):
            raise ValueError(f"shaping {shaping!r}: potential, naive or none is needed")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode {render_mode!r}: rgb_array, human or None is needed")
        self.shaping, self.gamma, self.max_steps, self.render_mode = shaping, gamma, max_steps, render_mode
        self.obstacle_count = obstacles
        low = np.array([0.0] * (RAYS + 1) + [-1.0], np.float32)
        self.observation_space = Box(low, np.ones(RAYS + 2, np.float32))
        self.action_space = Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """A new layout: obstacles, start, heading and goal. Returns the observation and an empty info.

        Raises:
            RuntimeError: where there are too many obstacles to leave a way.
        """
        super().reset(seed=seed)
        for _ in range(100):
            centres = self.np_random.uniform(0, SIDE, (self.obstacle_count, 2))
            radii = self.np_random.uniform(*OBSTACLE_RADII, (self.obstacle_count, 1))
            obstacles = np.concatenate([centres, radii], 1)
            cells, parts = free_cells(obstacles)
            if len(cells) < 2:
                continue
            start, goal = self.np_random.choice(len(cells), 2, replace=False)
            apart = np.hypot(*(cells[start] - cells[goal])) >= NEAREST_START
            if apart and parts[start] == parts[goal]:
                break
        else:
            raise RuntimeError(f"{self.obstacle_count} obstacles leave no way in any of 100 layouts; take fewer")
        self.place(cells[start], int(self.np_random.integers(HEADINGS)), cells[goal], obstacles)
        if self.render_mode == "human":
            self.render()
        return self.observation(), {}

    def place(self, position, heading: int, goal, obstacles=()) -> None:
        """Begin an episode with this layout: ``position`` and ``goal`` ``[2]`` in metres, ``heading`` 0 .. 23,
        counterclockwise from the x axis in 15 degrees, ``obstacles`` ``[K, 3]`` with x, y and radius."""
        self.position, self.goal = np.array(position, float), np.array(goal, float)
        self.heading, self.steps = heading, 0
        self.obstacles = np.array(obstacles, float).reshape(-1, 3)
        self._look()

    def _look(self) -> None:
        """Measure: clearance ``[16]`` and the goal's distance in metres, its direction in radians, -pi .. pi."""
        self.clearance = cast_rays(self.position, self.heading, self.obstacles)
        x, y = (self.goal - self.position).tolist()
        self.distance = float(np.hypot(x, y))
        angle = float(np.arctan2(y, x)) - self.heading * 2 * np.pi / HEADINGS
        self.direction = (angle + np.pi) % (2 * np.pi) - np.pi

    def observation(self) -> np.ndarray:
        """What the agent sees, ``[18]``."""
        seen = np.empty(RAYS + 2, np.float32)
        np.divide(self.clearance, RANGE, out=seen[:RAYS], casting="same_kind")
        seen[RAYS], seen[RAYS + 1] = self.distance / DIAGONAL, self.direction / np.pi
        return seen

    def potential(self) -> float:
        """phi of where the agent stands, 0 .. 10, larger nearer to the goal."""
        return SHAPING_SCALE * (1 - self.distance / DIAGONAL)

    def step(self, action: int):
        """See ``gymnasium.Env.step``; the class says what is rewarded."""
        before, distance = self.potential(), self.distance
        self.steps += 1
        crashed = False
        if action == FORWARD:
            crashed = bool(self.clearance[0] <= STEP)
            self.position = self.position + min(STEP, float(self.clearance[0])) * _DIRECTIONS[self.heading]
        else:
            self.heading = (self.heading + (1 if action == LEFT else -1)) % HEADINGS
        self._look()

        outcome = None
        if crashed:
            outcome = "obstacle"
        elif self.distance <= GOAL_RADIUS:
            outcome = "goal"
        elif self.steps >= self.max_steps:
            outcome = "time-out"
        over = outcome is not None
        reward = (END_REWARD if outcome == "goal" else -END_REWARD) if over else 0.0
        if self.shaping == "potential":
            reward += self.gamma * (0.0 if over else self.potential()) - before
        elif self.shaping == "naive":
            reward += SHAPING_SCALE * max(0.0, distance - self.distance) / DIAGONAL
        if self.render_mode == "human":
            self.render()
        return self.observation(), reward, over, False, {"outcome": outcome} if over else {}

    def render(self) -> np.ndarray | None:
        """The room from above, as RGB ``[320, 320, 3]`` or in a window: obstacles grey, the goal green, agent blue."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() does nothing without a render_mode, such as "rgb_array"')
            return None
        image = self._draw()
        if self.render_mode == "rgb_array":
            return image
        import cv2

        cv2.imshow(ENV_ID, image[:, :, ::-1])
        cv2.waitKey(1000 // self.metadata["render_fps"])
        return None

    def _draw(self) -> np.ndarray:
        import cv2

        def pixel(point) -> tuple[int, int]:
            return round(point[0] * PIXELS_PER_METRE), round((SIDE - point[1]) * PIXELS_PER_METRE)

        def disc(centre, radius: float, color: tuple[int, int, int]) -> None:
            cv2.circle(image, pixel(centre), round(radius * PIXELS_PER_METRE), color, cv2.FILLED, cv2.LINE_AA)

        size = round(SIDE * PIXELS_PER_METRE)
        image = np.full((size, size, 3), 255, np.uint8)
        for x, y, radius in self.obstacles:
            disc((x, y), radius, (120, 120, 120))
        for ray, clearance in zip(_RAYS[self.heading], self.clearance, strict=True):
            end = self.position + clearance * ray
            cv2.line(image, pixel(self.position), pixel(end), (205, 215, 235))
        disc(self.goal, GOAL_RADIUS, (44, 160, 44))
        disc(self.position, AGENT_RADIUS, (31, 119, 180))
        nose = self.position + 2 * AGENT_RADIUS * _DIRECTIONS[self.heading]
        cv2.line(image, pixel(self.position), pixel(nose), (31, 119, 180), 3, cv2.LINE_AA)
        cv2.rectangle(image, (0, 0), (size - 1, size - 1), (60, 60, 60), 2)
        return image

    def close(self) -> None:
        """Close the window, where there is one."""
        if self.render_mode == "human":
            import cv2

            cv2.destroyAllWindows()


def cast_rays(position: np.ndarray, heading: int, obstacles: np.ndarray) -> np.ndarray:
    """How far the agent's centre can move along each of the 16 rays before the agent touches something, in metres
    ``[16]``, at most ``RANGE``; ``position`` ``[2]``, ``obstacles`` ``[K, 3]`` with x, y and radius.

    A disc that moves among discs is a point that moves among discs larger by its radius. A unit ray d from p meets the
    circle of radius R around c at t = b - sqrt(b^2 - |c - p|^2 + R^2), with b = d (c - p).
    """
    rays = _RAYS[heading]
    clearance = ((_WALLS[heading] - position) / rays).min(1)
    if len(obstacles):
        to_centres = obstacles[:, :2] - position
        square = (to_centres * to_centres).sum(1)
        along = rays @ to_centres.T
        under_root = along * along - (square - (obstacles[:, 2] + AGENT_RADIUS) ** 2)
        meets = (under_root > 0) & (along > 0)
        hits = np.where(meets, along - np.sqrt(np.where(meets, under_root, 0.0)), RANGE)
        clearance = np.minimum(clearance, hits.min(1))
    return np.clip(clearance, 0.0, RANGE)


def free_cells(obstacles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middles ``[F, 2]`` of the grid cells where the agent can stand, and the number ``[F]`` of the connected part
    that each belongs to: within a part the agent can drive from cell to cell.

    Cells are as long as a step, and neighbours share a side. Between two middles at a distance R + margin from an
    obstacle's, a straight step comes closer by at most R - sqrt(R^2 - (step / 2)^2): 1.3 cm for the smallest obstacle.
    """
    margin = 0.02
    x, y = np.meshgrid(_CELLS, _CELLS, indexing="ij")
    free = (np.minimum(x, y) > AGENT_RADIUS + margin) & (np.maximum(x, y) < SIDE - AGENT_RADIUS - margin)
    for centre_x, centre_y, radius in obstacles:
        free &= (x - centre_x) ** 2 + (y - centre_y) ** 2 > (radius + AGENT_RADIUS + margin) ** 2
    parts, _ = ndimage.label(free)  # neighbours share a side
    return np.stack([x[free], y[free]], -1), parts[free]


if ENV_ID not in gymnasium.registry:
    gymnasium.register(ENV_ID, entry_point="lab3.environments.navigation:NavigationGoal")
