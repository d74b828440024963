#!/usr/bin/env python3
"""Reads plans as the engines that load them would: written from what those expect, not from
our C, so that an exporter's mistake cannot hide in its own reader.

plan_reader.py FORMAT FILE EXPERTS GPUS   prints a line "LAYER: [experts of the slots]" for each
layer, sorted by layer; refuses what the engine would refuse. Layers of vllm-ascend are counted
among the MoE layers, those of the others are the model's.
"""
import json
import re
import sys


def unique(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f'a key twice: {keys}'
    return dict(pairs)


def load(path):
    with open(path, encoding='utf-8') as file:
        return json.load(file, object_pairs_hook=unique)


def sglang(path):
    """--init-expert-location: a tensor [num_hidden_layers, num_physical_experts]."""
    data = load(path)
    assert list(data) == ['physical_to_logical_map'], list(data)
    return dict(enumerate(data['physical_to_logical_map']))


def trtllm(path):
    """moe_load_balancer.yaml. PyYAML reads it in the engine; where it is missing, the block and
    flow styles that exporters write are read by hand."""
    with open(path, encoding='utf-8') as file:
        text = file.read()
    try:
        import yaml
        data = yaml.safe_load(text)
    except ImportError:
        data = {key: int(value) for key, value in re.findall(r'^(\w+): (\d+)$', text, re.M)}
        data['initial_global_assignments'] = {
            int(layer): json.loads(slots)
            for layer, slots in re.findall(r'^  (\d+): (\[[\d, ]+\])$', text, re.M)}
    assert set(data) == {'num_slots', 'initial_global_assignments', 'layer_updates_per_iter'}
    assert data['layer_updates_per_iter'] == 0
    for slots in data['initial_global_assignments'].values():
        assert len(slots) == data['num_slots']
    return data['initial_global_assignments']


def vllm_ascend(path):
    """expert_map_path: per layer a list of devices with their experts, all of one length."""
    data = load(path)
    assert data['moe_layer_count'] == len(data['layer_list'])
    layers = {}
    for layer in data['layer_list']:
        devices = layer['device_list']
        assert layer['device_count'] == len(devices) == int(sys.argv[4])
        assert [device['device_id'] for device in devices] == list(range(len(devices)))
        assert len({len(device['device_expert']) for device in devices}) == 1
        layers[layer['layer_id']] = sum((device['device_expert'] for device in devices), [])
    assert list(layers) == list(range(len(layers)))
    return layers


def moesim(path):
    """The neutral form, as policies/plan/plan_neutral.c documents it."""
    data = load(path)
    assert data['format'] == 'moesim.plan' and data['version'] == 1
    assert data['expert_count'] == int(sys.argv[3])
    assert data['gpu_count'] in (None, int(sys.argv[4]))
    layers = {layer['layer']: layer['experts'] for layer in data['layers']}
    assert all(len(slots) == data['slot_count'] for slots in layers.values())
    assert len(layers) == len(data['layers'])
    assert data['hidden_layer_count'] is None or max(layers) < data['hidden_layer_count']
    return layers


def main():
    reader = {'sglang': sglang, 'trtllm': trtllm, 'vllm-ascend': vllm_ascend,
              'moesim': moesim}[sys.argv[1]]
    experts, gpus = int(sys.argv[3]), int(sys.argv[4])
    layers = reader(sys.argv[2])
    lengths = {len(slots) for slots in layers.values()}
    assert len(lengths) == 1 and lengths.pop() % gpus == 0
    for number in sorted(layers):
        slots = layers[number]
        held = [slot for slot in slots if slot is not None]
        assert sys.argv[1] == 'moesim' or len(held) == len(slots), 'an empty slot'
        assert all(type(slot) is int for slot in held)
        assert set(held) == set(range(experts)), f'layer {number} lacks an expert'
        print(f'{number}: {slots}')


if __name__ == '__main__':
    main()
