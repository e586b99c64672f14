"""edge-wm as ROS 2 nodes: coats over the ROS-free classes.

    conversions   messages to nouns and back
    qos           quality of service, topic by topic
    parameters    what can be set, declared once
    managed       a lifecycle node whose transitions cannot fail silently
    spinning      from a node class to a process
    sensors       subscriptions for a robot file's streams
    processes     the one list of processes that make up a robot
    *_node        the nodes

Nothing here computes in a callback: samples are pushed, and threads with absolute deadlines do
the work.
"""
