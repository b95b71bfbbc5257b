"""Augmentation of a whole batch at once, as a function of the images and of random numbers that are handed in.

Each function takes images ``[B, C, H, W]`` in 0 .. 1 and uniform random numbers ``[B, NOISE]``, and returns images of
the same shape: no hidden state, so a batch is augmented alike in whatever process and after whatever interruption.
"""

import torch
import torch.nn.functional as F

NOISE = 4  # uniform random numbers that an augmentation gets for each image


def crop_and_flip(images: torch.Tensor, noise: torch.Tensor, pixels: int = 4, border: str = "constant") -> torch.Tensor:
    """Shift each image at random and mirror half of them, left to right (He et al. 2016, section 4.2).

    The crop of the image's own size is taken at random from the image with a black border around it, as torchvision's
    ``RandomCrop(32, padding=4)`` and with it most published results have it, so that accuracies can be compared.

    Args:
        images: ``[B, C, H, W]``.
        noise: uniform in 0 .. 1, ``[B, NOISE]``; the first three numbers are row, column and flip.
        pixels: width of the border, and so the most that an image is shifted in either direction.
        border: ``constant``, black; or ``reflect``, the image mirrored at its edge.
    """
    batch, _, height, width = images.shape
    top, left = (noise[:, :2] * (2 * pixels + 1)).long().unbind(1)
    # Every crop of every image, [B, C, top, left, H, W]: a view, of which one index copies out the chosen ones.
    windows = F.pad(images, [pixels] * 4, border).unfold(2, height, 1).unfold(3, width, 1)
    crops = windows[torch.arange(batch, device=images.device), :, top, left]
    return torch.where(noise[:, 2, None, None, None] < 0.5, crops.flip(3), crops)


def random_affine(
    images: torch.Tensor, noise: torch.Tensor, degrees: float = 12, pixels: float = 2, scale: float = 0.1
) -> torch.Tensor:
    """Rotate, shift and scale each image at random, about its centre, filling with 0 (black).

    Args:
        images: ``[B, C, H, W]``.
        noise: uniform in 0 .. 1, ``[B, NOISE]``.
        degrees, pixels, scale: the most in either direction.
    """
    angle, size, right, down = (2 * noise - 1).unbind(1)
    angle, size = angle * (degrees * torch.pi / 180), 1 + size * scale
    cosine, sine = torch.cos(angle) / size, torch.sin(angle) / size
    height, width = images.shape[-2:]
    # The grid runs from -1 to 1 across the image, so a pixel is 2 / width of it.
    aspect = height / width
    rows = [cosine, -sine * aspect, right * (2 * pixels / width), sine / aspect, cosine, down * (2 * pixels / height)]
    matrix = torch.stack(rows, 1)
    grid = F.affine_grid(matrix.reshape(-1, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def mirrored_and_shifted(images: torch.Tensor) -> list[tuple[float, torch.Tensor]]:
    """Views of images ``[B, C, H, W]``, each with the weight that its logits have in a mean: as they are, and shifted
    by one pixel up and left, or down and right, with the edge reflected; each of the three also mirrored. The shifted
    ones count half (Jordan 2024, section 3.5)."""
    height, width = images.shape[-2:]
    padded = F.pad(images, [1] * 4, "reflect")
    shifted = [(0.25, images)] + [(0.125, padded[..., at : at + height, at : at + width]) for at in (0, 2)]
    return [(weight, view) for weight, plain in shifted for view in (plain, plain.flip(3))]
