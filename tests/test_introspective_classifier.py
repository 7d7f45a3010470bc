"""The classifier: the authors' formula, its limits, and what users of transformers expect of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import pipeline

from idml_hf import IDMLForImageClassification, IDMLImageProcessor


def make(**config):
    torch.manual_seed(0)
    return IDMLForImageClassification.from_backbone("resnet8_small", pretrained=False, num_labels=7, **config)


def pieces(model, x):
    """Pooled feature, plain logits and uncertainty embedding."""
    pooled = model.idml.features(x)[1]
    return pooled, model.classifier(pooled), model.idml.uncertainty_head(pooled)


def test_training_logits_are_those_of_the_authors_formula():
    """wangck20/IDML, image_classification: the class centre is the classifier of a unit matrix, bias and all."""
    model, x = make().train(), torch.randn(4, 3, 28, 28)
    # trunk in evaluation mode, so that the pieces can be had by a second pass
    model.idml.backbone.eval()
    h, z, u = pieces(model, x)
    centres = model.classifier(torch.eye(h.shape[1])).T
    distance = (h[:, None] - centres[None]).square().sum(2)
    doubt = u.square().sum(1, keepdim=True)
    expected = 1 - (1 - z) * torch.exp(-doubt / (5 * distance))
    torch.testing.assert_close(model(x).logits, expected, atol=1e-5, rtol=1e-5)
    assert (expected - z).abs().max() > 1e-2


def test_ratio_form_and_tau():
    model, x = make(form="ratio", tau=2.0).train(), torch.randn(4, 3, 28, 28)
    model.idml.backbone.eval()
    h, z, u = pieces(model, x)
    centres = model.classifier(torch.eye(h.shape[1])).T
    distance = (h[:, None] - centres[None]).square().sum(2).sqrt()
    expected = 1 - (1 - z) * torch.exp(-u.norm(dim=1, keepdim=True) / (2 * distance))
    torch.testing.assert_close(model(x).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", ["released_classification", "ratio"])
def test_without_uncertainty_it_is_the_plain_classifier(form):
    model, plain, x = make(form=form).train(), make(form="none").train(), torch.randn(4, 3, 28, 28)
    plain.load_state_dict(model.state_dict())
    for m in (model, plain):
        m.idml.backbone.eval()
        torch.nn.init.zeros_(m.idml.uncertainty_head.linear.weight)
        torch.nn.init.constant_(m.idml.uncertainty_head.linear.bias, -1.0)
    assert torch.equal(model(x).logits, plain(x).logits)
    assert (model(x).uncertainty == 0).all()


def test_evaluation_gives_the_plain_logits():
    model, x = make().eval(), torch.randn(4, 3, 28, 28)
    assert torch.equal(model(x).logits, pieces(model, x)[1])


@pytest.mark.parametrize("form", ["released_classification", "ratio"])
def test_gradients_are_finite_where_a_feature_is_its_class_centre(form):
    model = make(form=form).train()
    h = torch.randn(3, 64)
    with torch.no_grad():
        model.classifier.weight[2] = h[1] - model.classifier.bias[2]
    h.requires_grad_(True)
    u = model.idml.uncertainty_head(h)
    from idml_hf.similarity import introspective_logits

    z = model.classifier(h)
    logits = introspective_logits(z, h, u, model.classifier.weight, model.classifier.bias, form=form)
    F.cross_entropy(logits, torch.tensor([0, 2, 4])).backward()
    gradients = [h.grad, *(p.grad for p in model.classifier.parameters())]
    assert torch.isfinite(logits).all() and all(torch.isfinite(g).all() for g in gradients)


def test_hard_and_soft_labels_give_one_loss():
    model, x = make().train(), torch.randn(4, 3, 28, 28)
    model.idml.backbone.eval()
    labels = torch.tensor([0, 1, 6, 3])
    hard, soft = model(x, labels=labels).loss, model(x, labels=F.one_hot(labels, 7).float()).loss
    torch.testing.assert_close(hard, soft)
    hard.backward()
    assert model.idml.uncertainty_head.linear.weight.grad.norm() > 0


def test_the_pipeline_names_classes_and_scores(tmp_path):
    names = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu"]
    model = make(id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    model.save_pretrained(tmp_path)
    IDMLImageProcessor.from_backbone("resnet8_small").save_pretrained(tmp_path)
    classify = pipeline("image-classification", model=str(tmp_path), top_k=7)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    answers = classify(picture)
    assert {answer["label"] for answer in answers} == set(names)
    x = IDMLImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt").pixel_values
    expected = model.eval()(x).logits.softmax(1)[0]
    found = {answer["label"]: answer["score"] for answer in answers}
    assert [found[name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)
