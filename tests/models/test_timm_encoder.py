"""Networks of timm as frozen encoders, where a timm that is young enough is installed."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from datasets.files import DataError
from models.backbones.reduction import fit_reduction
from models.backbones.timm_encoder import TimmEncoder
from models.backbones.timm_weights import load_renamed

timm = pytest.importorskip("timm", minversion="1.0")

IMAGES = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
NETWORKS = ["test_efficientnet", "test_convnext", "test_resnet", "test_vit", "test_vit2", "test_vit3",
            "test_mambaout"]
"""Of several kinds: maps with channels first and last, [cls], average and attention pooling, a head that widens."""


def make(name: str, **options) -> TimmEncoder:
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    encoder = TimmEncoder(model.requires_grad_(False), name, 160, **options)
    encoder.reduce_by(fit_reduction(*(part.flatten(0, -2) for part in encoder.wide(IMAGES)), 8))
    return encoder


@pytest.mark.parametrize("name", NETWORKS)
def test_patches_and_globals_lie_in_one_space(name):
    encoder = make(name)
    rows, columns = encoder.grid(160, 160)
    wide, features = encoder.wide(IMAGES), encoder(IMAGES)
    assert wide.patches.shape == (2, rows * columns, wide.whole.shape[1]) and rows == columns > 1
    assert wide.patches.isfinite().all() and wide.patches.std(dim=1).gt(0).any(), "patches differ"
    assert features.patch_embeddings.shape == (2, rows * columns, encoder.embed_dim)
    assert features.global_embeddings.shape == (2, 3, encoder.embed_dim)
    assert torch.equal(features.global_embeddings[:, 0], features.global_embeddings[:, 2])
    torch.testing.assert_close(encoder.encode_whole(IMAGES), features.global_embeddings[:, 0])


def test_a_patch_is_what_the_head_makes_of_it_alone():
    wide = make("test_efficientnet").wide(IMAGES)
    torch.testing.assert_close(wide.patches.mean(dim=1), wide.whole)  # the head is the mean and nothing else
    model = (encoder := make("test_convnext")).model
    maps = model.forward_features(IMAGES)
    first = model.forward_head(maps[:, :, :1, :1], pre_logits=True)
    torch.testing.assert_close(encoder.wide(IMAGES).patches[:, 0], first)


def test_attention_is_that_of_the_last_block_and_makes_the_masked_globals():
    encoder = make("test_vit", masked_globals=True)
    layer, seen = encoder.model.blocks[-1].attn, []
    layer.fused_attn = False
    hook = layer.attn_drop.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    encoder.model.forward_features(IMAGES)
    hook.remove()
    attention = encoder.attention(IMAGES)
    torch.testing.assert_close(attention, seen[0].mean(dim=1)[:, 0, 1:])
    side = 160 // encoder.grid(160, 160)[0]
    high = torch.zeros_like(attention, dtype=torch.bool).scatter_(
        1, attention.topk(-(-attention.shape[1] * 15 // 100), dim=1).indices, True)
    pixels = F.interpolate(high.view(2, 1, 160 // side, -1).float(), scale_factor=side).bool()
    black = (-torch.tensor(encoder.mean) / torch.tensor(encoder.std)).view(1, 3, 1, 1)
    _, kept, others = encoder(IMAGES).global_embeddings.unbind(dim=1)
    torch.testing.assert_close(kept, encoder.encode_whole(torch.where(pixels, IMAGES, black)), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(others, encoder.encode_whole(torch.where(pixels, black, IMAGES)), atol=1e-4, rtol=1e-4)


def test_masks_are_refused_where_there_is_no_cls_token():
    with pytest.raises(ValueError, match=r"test_resnet has no \[cls\] token"):
        make("test_resnet", masked_globals=True)


def test_weights_of_another_port_are_renamed_and_of_another_network_refused(tmp_path):
    network, same = (timm.create_model("test_efficientnet") for _ in range(2))
    port = {f"_{name.replace('_', '-')}".replace("running-", "running_").replace("num-batches-", "num_batches_"): value
            for name, value in network.state_dict().items()}
    assert not set(port) & set(network.state_dict())
    torch.save(port, tmp_path / "port.pth")
    load_renamed(same, str(tmp_path / "port.pth"))
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in network.state_dict().items())
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="not the weights of this network"):
        load_renamed(same, str(tmp_path / "other.safetensors"))
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(DataError, match="not a readable state dict"):
        load_renamed(same, str(tmp_path / "text.pth"))
    with pytest.raises(DataError, match="no such file of weights"):
        load_renamed(same, str(tmp_path / "none.pth"))
