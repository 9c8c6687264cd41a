"""How the CUDA kernels of stft, istft, log_mel and vocoder_head are launched: streams, graphs, devices."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import mimo_audio_native as mn

pytestmark = pytest.mark.cuda

N_FFT, HOP, FRAMES = 960, 240, 23

Run = Callable[[Tensor], Tensor]


def cases(device: str) -> dict[str, tuple[Run, Tensor]]:
    """Every kernel as a function of its one changing input, and such an input; the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)
    ops = torch.ops.mimo
    window, bank = torch.hann_window(N_FFT, device=device), mn.mel_filterbank(24000, N_FFT, 128).to(device)
    bounds = torch.tensor([0, 4, 4, 5, FRAMES], device=device)

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    wave, spectrum, head = random(2, FRAMES * HOP), random(2, FRAMES, N_FFT // 2 + 1, 2), random(FRAMES, N_FFT + 2)
    return {
        "stft": (lambda x: ops.stft(x, window, N_FFT, HOP, "same"), wave),
        "stft_backward": (lambda g: ops.stft_backward(g, window, N_FFT, HOP, "same", FRAMES * HOP), spectrum),
        "istft": (lambda x: ops.istft(x, window, HOP), spectrum),
        "istft_backward": (lambda g: ops.istft_backward(g, window, HOP), wave),
        "log_mel": (lambda x: ops.log_mel(x, window, bank, HOP, 1e-7, "same"), wave),
        "log_mel_backward": (
            lambda g: ops.log_mel_backward(g, wave, window, bank, HOP, 1e-7, "same"),
            random(2, FRAMES, 128),
        ),
        "vocoder_head": (lambda x: ops.vocoder_head(x, window, HOP, bounds, 100.0), head),
        "vocoder_head_backward": (
            lambda g: ops.vocoder_head_backward(g, head, window, HOP, bounds, 100.0),
            random(FRAMES * HOP),
        ),
    }


NAMES = [f"{op}{way}" for op in ("stft", "istft", "log_mel", "vocoder_head") for way in ("", "_backward")]


@pytest.mark.parametrize("name", NAMES)
def test_a_captured_graph_replays_with_new_input(name: str) -> None:
    run, x = cases("cuda")[name]
    run(x)  # the first launch of a kernel asks for shared memory
    place = torch.zeros_like(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(place)
    for scale in (1.0, 0.5):
        place.copy_(scale * x)
        graph.replay()
        torch.testing.assert_close(result, run(scale * x), rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_order_on_the_current_stream(name: str) -> None:
    """The input arrives late on a side stream: a kernel on any other would read zeros."""
    run, x = cases("cuda")[name]
    expected, place = run(x), torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        place.copy_(x)
        result = run(place)
    torch.cuda.synchronize()
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_runs_where_the_tensors_are(name: str) -> None:
    run, x = cases("cuda:0")[name]
    expected = run(x).cpu()
    for index in range(torch.cuda.device_count()):
        run, x = cases(f"cuda:{index}")[name]
        with torch.cuda.device(0):
            result = run(x)
        assert result.get_device() == index
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
