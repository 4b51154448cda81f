"""AVShapes: generated clips of moving, sounding shapes in the exact layouts of RefAVS and ReVOS."""
